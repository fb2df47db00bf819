# The master loses its way to the network of its users: the ping node does not answer it any more, but does answer the
# other. It gives the service away, and gets it back when the network is back.
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
> cut eth0 from clustnode1
clustnode1: stop httpd
clustnode1: - 172.23.2.14
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 clustnode2
client: 172.23.2.14 clustnode2
> heal eth0
clustnode1: + 172.23.2.14
clustnode1: start httpd
clustnode2: stop httpd
clustnode2: - 172.23.2.14
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
---- notes
clustnode1 warning: ping node 172.23.2.100 does not answer
clustnode2 info: Telling other node that we have more visible ping nodes.
clustnode1 info: Giving up because we
clustnode2 info: clustnode1 wants to go standby [all]
clustnode1 info: ping node 172.23.2.100 answers
clustnode2 info: Giving up foreign resources (auto_failback).
never error
