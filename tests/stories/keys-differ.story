# One node gets a key that the other does not have. They cannot hear each other: that is a partition, and it says so.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback on
    keys auth 1; 1 sha1 secret
    link eth1 crossover
    group clustnode1 172.23.2.14 httpd

start clustnode1 clustnode2
settle
keys clustnode2 auth 1; 1 sha1 other
settle
keys clustnode2 auth 1; 1 sha1 secret
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> keys clustnode2 auth 1; 1 sha1 other
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 both
> keys clustnode2 auth 1; 1 sha1 secret
clustnode2: stop httpd
clustnode2: - 172.23.2.14
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
