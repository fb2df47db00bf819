# Three links. Each is cut alone, then each pair: as long as one link is left, nothing moves.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback on
    keys auth 1; 1 md5 secret
    baud 115200
    link eth1 crossover
    link eth0 lan
    link ttyS0 serial
    group clustnode1 172.23.2.14 httpd

start clustnode1 clustnode2
settle
cut eth1
settle
heal eth1
cut eth0
settle
heal eth0
cut ttyS0
settle
cut eth1
settle
heal ttyS0
cut eth0
settle
heal eth1
cut ttyS0
settle
heal all
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> cut eth1
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> heal eth1
> cut eth0
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 none
> heal eth0
> cut ttyS0
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> cut eth1
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> heal ttyS0
> cut eth0
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 none
> heal eth1
> cut ttyS0
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 none
> heal all
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
---- notes
clustnode1 warning: eth1
clustnode1 warning: eth0
clustnode1 warning: ttyS0
never error
