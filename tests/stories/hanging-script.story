# httpd hangs when it is started on the node that takes over. It is killed at its limit, and the group is given up
# there; when the preferred node returns, it serves again.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback on
    keys auth 1; 1 crc
    link eth1 crossover
    group clustnode1 172.23.2.14 httpd
    script httpd on clustnode2 start hangs
    limit start 2s

start clustnode1 clustnode2
settle
power-off clustnode1
settle within 4s
power-on clustnode1
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> power-off clustnode1
clustnode2: + 172.23.2.14
clustnode2: start httpd killed
clustnode2: - 172.23.2.14
owner: 172.23.2.14 none
> power-on clustnode1
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
---- notes
clustnode2 critical: httpd
