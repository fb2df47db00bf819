# The ping node is lost for both nodes: nobody is better off, and nothing moves.
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
    group clustnode2 172.23.2.15 ldap

start clustnode1
wait 50ms
start clustnode2
settle
cut eth0
settle
heal eth0
settle
----
> start clustnode1
> wait 50ms
> start clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
clustnode2: + 172.23.2.15
clustnode2: start ldap
owner: 172.23.2.14 clustnode1
owner: 172.23.2.15 clustnode2
client: 172.23.2.14 clustnode1
client: 172.23.2.15 clustnode2
> cut eth0
owner: 172.23.2.14 clustnode1
owner: 172.23.2.15 clustnode2
client: 172.23.2.14 none
client: 172.23.2.15 none
> heal eth0
owner: 172.23.2.14 clustnode1
owner: 172.23.2.15 clustnode2
client: 172.23.2.14 clustnode1
client: 172.23.2.15 clustnode2
---- notes
never error
