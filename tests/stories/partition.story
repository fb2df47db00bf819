# All links are cut: guard none means that both serve now. After the heal the owner from before the split keeps
# the service without a gap, the other stops its copy, and the one that stays announces the address again.
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
cut all
settle within 1200ms
heal all
settle within 1500ms
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> cut all
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 both
> heal all
clustnode2: stop httpd
clustnode2: - 172.23.2.14
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
---- notes
clustnode1 warning: taken for dead because it is silent
clustnode1 critical: returning after partition
clustnode2 warning: taken for dead because it is silent
clustnode2 critical: returning after partition
