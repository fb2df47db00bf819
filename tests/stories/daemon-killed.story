# The master's daemon dies alone: its address and service stay in the kernel. The other takes over. The daemon
# that is started again first stops what its earlier life left behind; then the service returns to it.
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
kill clustnode1
settle
start clustnode1
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> kill clustnode1
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 both
> start clustnode1
clustnode1: stop httpd
clustnode1: - 172.23.2.14
clustnode1: + 172.23.2.14
clustnode1: start httpd
clustnode2: stop httpd
clustnode2: - 172.23.2.14
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
