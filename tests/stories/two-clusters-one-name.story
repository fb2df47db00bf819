# Two clusters on one segment and one port whose nodes have the same names, but other keys: what is not signed with
# our key is nobody's word.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback on
    keys auth 1; 1 sha1 secret
    link eth1 crossover
    group clustnode1 172.23.2.14 httpd
cluster east
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback on
    keys auth 1; 1 sha1 other
    link eth1 crossover
    group clustnode1 172.23.2.15 mysql

start clustnode1 clustnode2 east/clustnode1 east/clustnode2
settle
stop east/clustnode1
settle
kill clustnode1
settle
----
> start clustnode1 clustnode2 east/clustnode1 east/clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
east/clustnode1: + 172.23.2.15
east/clustnode1: start mysql
owner: 172.23.2.14 clustnode1
owner: east/172.23.2.15 east/clustnode1
client: 172.23.2.14 clustnode1
client: 172.23.2.15 clustnode1
> stop east/clustnode1
east/clustnode1: stop mysql
east/clustnode1: - 172.23.2.15
east/clustnode2: + 172.23.2.15
east/clustnode2: start mysql
owner: 172.23.2.14 clustnode1
owner: east/172.23.2.15 east/clustnode2
client: 172.23.2.14 clustnode1
client: 172.23.2.15 clustnode2
> kill clustnode1
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 both
owner: east/172.23.2.15 east/clustnode2
client: 172.23.2.15 clustnode2
