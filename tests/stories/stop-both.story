# Both nodes leave, one after the other: in the end nothing runs anywhere.
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
stop clustnode2
stop clustnode1
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> stop clustnode2
> stop clustnode1
clustnode1: stop httpd
clustnode1: - 172.23.2.14
owner: 172.23.2.14 none
