# The power goes for both and returns for both, with the service at the node that does not prefer it: nobody remembers
# that, and everything starts where it is preferred.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback off
    keys auth 1; 1 sha1 secret
    link eth1 crossover
    link eth0 lan
    group clustnode1 172.23.2.14 httpd
    group clustnode2 172.23.2.15 ldap

start clustnode1 clustnode2
settle
standby clustnode1 all
settle
power-off clustnode1 clustnode2
settle
power-on clustnode1 clustnode2
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
> standby clustnode1 all
answer: done
clustnode1: stop httpd
clustnode1: - 172.23.2.14
clustnode2: + 172.23.2.14
clustnode2: start httpd
owner: 172.23.2.14 clustnode2
owner: 172.23.2.15 clustnode2
client: 172.23.2.14 clustnode2
client: 172.23.2.15 clustnode2
> power-off clustnode1 clustnode2
owner: 172.23.2.14 none
owner: 172.23.2.15 none
> power-on clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
clustnode2: + 172.23.2.15
clustnode2: start ldap
owner: 172.23.2.14 clustnode1
owner: 172.23.2.15 clustnode2
client: 172.23.2.14 clustnode1
client: 172.23.2.15 clustnode2
