# A pause that is shorter than deadtime moves nothing, neither here nor there.
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
freeze clustnode1
wait 600ms
thaw clustnode1
settle
freeze clustnode2
wait 600ms
thaw clustnode2
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> freeze clustnode1
> wait 600ms
> thaw clustnode1
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> freeze clustnode2
> wait 600ms
> thaw clustnode2
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
