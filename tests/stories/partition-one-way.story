# The master's frames get nowhere, but it hears everything. The other takes over; in the end one of them serves.
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
cut all from clustnode1
settle
heal all
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> cut all from clustnode1
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 both
> heal all
clustnode2: stop httpd
clustnode2: - 172.23.2.14
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
