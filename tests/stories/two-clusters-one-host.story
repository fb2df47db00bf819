# Two clusters on the same two hosts, with ports and keys of their own. The same node names mean other daemons; the
# loss of a host is a loss for both.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback on
    keys auth 1; 1 crc
    link eth1 crossover
    group clustnode1 172.23.2.14 httpd
cluster east
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    udpport 1694
    auto_failback on
    keys auth 1; 1 crc
    link eth1 crossover
    group clustnode2 172.23.2.15 mysql

start clustnode1 clustnode2 east/clustnode1 east/clustnode2
settle
standby east/clustnode2 all
settle
stop clustnode1
settle
power-off clustnode1
settle
----
> start clustnode1 clustnode2 east/clustnode1 east/clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
east/clustnode2: + 172.23.2.15
east/clustnode2: start mysql
owner: 172.23.2.14 clustnode1
owner: east/172.23.2.15 east/clustnode2
client: 172.23.2.14 clustnode1
client: 172.23.2.15 clustnode2
> standby east/clustnode2 all
answer: done
east/clustnode1: + 172.23.2.15
east/clustnode1: start mysql
east/clustnode2: stop mysql
east/clustnode2: - 172.23.2.15
owner: 172.23.2.14 clustnode1
owner: east/172.23.2.15 east/clustnode1
client: 172.23.2.14 clustnode1
client: 172.23.2.15 clustnode1
> stop clustnode1
clustnode1: stop httpd
clustnode1: - 172.23.2.14
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 clustnode2
owner: east/172.23.2.15 east/clustnode1
client: 172.23.2.14 clustnode2
client: 172.23.2.15 clustnode1
> power-off clustnode1
east/clustnode2: + 172.23.2.15
east/clustnode2: start mysql
owner: 172.23.2.14 clustnode2
owner: east/172.23.2.15 east/clustnode2
client: 172.23.2.14 clustnode2
client: 172.23.2.15 clustnode2
