# The master's daemon is not scheduled any more, and its address stays in its kernel. The other has the machine reset
# before it takes over: at no time do both have the service.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback on
    stonith_host * null clustnode1 clustnode2
    keys auth 1; 1 sha1 secret
    link eth1 crossover
    link eth0 lan
    group clustnode1 172.23.2.14 httpd

start clustnode1 clustnode2
settle
freeze clustnode1
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> freeze clustnode1
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 clustnode2
client: 172.23.2.14 clustnode2
---- notes
clustnode2 info: node clustnode1 now reset.
