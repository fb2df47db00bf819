# Two clusters on one segment and one port, with different keys. Neither hears the other; one loses a node, the other
# does not care.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback on
    keys auth 1; 1 sha1 secret
    link eth0 lan
    group clustnode1 172.23.2.14 httpd
cluster east
    nodes east1 east2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback on
    keys auth 1; 1 sha1 other
    link eth0 lan
    group east1 172.23.2.15 mysql

start clustnode1 clustnode2 east/east1 east/east2
settle
power-off clustnode1
settle
power-on clustnode1
settle
----
> start clustnode1 clustnode2 east/east1 east/east2
clustnode1: + 172.23.2.14
clustnode1: start httpd
east/east1: + 172.23.2.15
east/east1: start mysql
owner: 172.23.2.14 clustnode1
owner: east/172.23.2.15 east/east1
client: 172.23.2.14 clustnode1
client: 172.23.2.15 east1
> power-off clustnode1
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 clustnode2
owner: east/172.23.2.15 east/east1
client: 172.23.2.14 clustnode2
client: 172.23.2.15 east1
> power-on clustnode1
clustnode1: + 172.23.2.14
clustnode1: start httpd
clustnode2: stop httpd
clustnode2: - 172.23.2.14
owner: 172.23.2.14 clustnode1
owner: east/172.23.2.15 east/east1
client: 172.23.2.14 clustnode1
client: 172.23.2.15 east1
