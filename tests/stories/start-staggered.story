# The preferred node comes up a moment later than the other one, still within initdead. The other waits that
# long, so the service starts on the preferred node and nowhere else.
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

start clustnode2
wait 1s
start clustnode1
settle
----
> start clustnode2
> wait 1s
> start clustnode1
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
