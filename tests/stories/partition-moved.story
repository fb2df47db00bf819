# All links are cut while the other node has the service by order, with auto_failback off. The owner from before
# the split is the one that keeps it.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback off
    keys auth 1; 1 crc
    link eth1 crossover
    link ttyS0 serial
    baud 115200
    group clustnode1 172.23.2.14 httpd

start clustnode1 clustnode2
settle
standby clustnode1 all
settle
cut all
settle
heal all
settle within 1500ms
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> standby clustnode1 all
answer: done
clustnode1: stop httpd
clustnode1: - 172.23.2.14
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 clustnode2
client: 172.23.2.14 clustnode2
> cut all
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 both
> heal all
clustnode1: stop httpd
clustnode1: - 172.23.2.14
owner: 172.23.2.14 clustnode2
client: 172.23.2.14 clustnode2
