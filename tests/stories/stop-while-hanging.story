# A node is told to leave while its script hangs in the start: that is ended, not waited for until its limit of five
# minutes, and the other takes over.
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
    script httpd on clustnode1 start hangs

start clustnode1 clustnode2
wait 1s
stop clustnode1
settle
----
> start clustnode1 clustnode2
> wait 1s
clustnode1: + 172.23.2.14
> stop clustnode1
clustnode1: start httpd killed
clustnode1: - 172.23.2.14
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 clustnode2
client: 172.23.2.14 clustnode2
