# The preferred node returns with auto_failback legacy, heartbeat's default: between nodes of Locum the outcome
# is that of on.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback legacy
    keys auth 1; 1 crc
    link eth1 crossover
    link ttyS0 serial
    baud 115200
    group clustnode1 172.23.2.14 httpd

start clustnode1 clustnode2
settle
power-off clustnode1
settle
power-on clustnode1
settle
power-off clustnode2
settle
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
> power-on clustnode1
clustnode1: + 172.23.2.14
clustnode1: start httpd
clustnode2: stop httpd
clustnode2: - 172.23.2.14
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> power-off clustnode2
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
