# The spare node loses its way to the users: nothing moves. Then the master does, gives the service away, and with
# auto_failback off it stays there when the network is back.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback off
    ping 172.23.2.100
    respawn hacluster /usr/lib/heartbeat/ipfail
    keys auth 1; 1 sha1 secret
    link eth1 crossover
    link eth0 lan
    group clustnode1 172.23.2.14 httpd

start clustnode1 clustnode2
settle
cut eth0 from clustnode2
settle
heal eth0
settle
cut eth0 from clustnode1
settle
heal eth0
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> cut eth0 from clustnode2
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> heal eth0
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> cut eth0 from clustnode1
clustnode1: stop httpd
clustnode1: - 172.23.2.14
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 clustnode2
client: 172.23.2.14 clustnode2
> heal eth0
owner: 172.23.2.14 clustnode2
client: 172.23.2.14 clustnode2
---- notes
clustnode2 info: Giving up because we
clustnode1 info: Giving up because we
never error
