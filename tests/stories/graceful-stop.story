# The master leaves in good order: it stops right to left, says so, and the other takes over at once, long
# before the deadtime.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback on
    keys auth 1; 1 crc
    link eth1 crossover
    link ttyS0 serial
    baud 115200
    group clustnode1 172.23.2.14 httpd

start clustnode1 clustnode2
settle
stop clustnode1
settle within 300ms
start clustnode1
settle
stop clustnode2
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> stop clustnode1
clustnode1: stop httpd
clustnode1: - 172.23.2.14
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 clustnode2
client: 172.23.2.14 clustnode2
> start clustnode1
clustnode1: + 172.23.2.14
clustnode1: start httpd
clustnode2: stop httpd
clustnode2: - 172.23.2.14
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> stop clustnode2
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
