# The master reaches no ping node, and the other is dead: there is nobody to give the service to.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback on
    ping 172.23.2.100
    respawn hacluster /usr/lib/heartbeat/ipfail
    keys auth 1; 1 sha1 secret
    link eth1 crossover
    link eth0 lan
    group clustnode1 172.23.2.14 httpd

start clustnode1 clustnode2
settle
power-off clustnode2
settle
cut eth0
settle
heal eth0
power-on clustnode2
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> power-off clustnode2
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> cut eth0
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 none
> heal eth0
> power-on clustnode2
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
---- notes
clustnode1 warning: ping node 172.23.2.100 does not answer
never error
