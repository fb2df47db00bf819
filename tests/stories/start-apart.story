# No cable is plugged in when the nodes start: each takes the other for dead and serves. When the cables come, one of them
# serves, the preferred one.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback on
    keys auth 1; 1 sha1 secret
    link eth1 crossover
    link eth0 lan
    group clustnode1 172.23.2.14 httpd

cut eth1 eth0
start clustnode1 clustnode2
settle
heal all
settle
----
> cut eth1 eth0
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 both
> heal all
clustnode2: stop httpd
clustnode2: - 172.23.2.14
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
