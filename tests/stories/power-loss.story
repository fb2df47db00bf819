# The article's story: the master loses its power, the other answers within the deadtime.
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
power-off clustnode1
settle within 1200ms
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> power-off clustnode1
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 clustnode2
client: 172.23.2.14 clustnode2
