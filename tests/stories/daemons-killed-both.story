# Both daemons die, and are started again at the same time. Each sweeps what it left; then the service starts once.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback on
    keys auth 1; 1 sha1 secret
    link eth1 crossover
    link eth0 lan
    group clustnode1 172.23.2.14 httpd
    group clustnode2 172.23.2.15 ldap

start clustnode1 clustnode2
settle
kill clustnode1
kill clustnode2
start clustnode1 clustnode2
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
clustnode2: + 172.23.2.15
clustnode2: start ldap
owner: 172.23.2.14 clustnode1
owner: 172.23.2.15 clustnode2
client: 172.23.2.14 clustnode1
client: 172.23.2.15 clustnode2
> kill clustnode1
> kill clustnode2
> start clustnode1 clustnode2
clustnode1: stop httpd
clustnode1: - 172.23.2.14
clustnode1: + 172.23.2.14
clustnode1: start httpd
clustnode2: stop ldap
clustnode2: - 172.23.2.15
clustnode2: + 172.23.2.15
clustnode2: start ldap
owner: 172.23.2.14 clustnode1
owner: 172.23.2.15 clustnode2
client: 172.23.2.14 clustnode1
client: 172.23.2.15 clustnode2
