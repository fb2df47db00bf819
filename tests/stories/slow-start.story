# httpd needs longer to start than deadtime is, and longer than the agents of the other group. Nobody takes a busy node
# for a dead one, and groups do not wait for each other.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback on
    keys auth 1; 1 crc
    link eth1 crossover
    link eth0 lan
    group clustnode1 172.23.2.14 httpd
    group clustnode1 172.23.2.15 ldap
    script httpd start 3s
    script httpd stop 3s

start clustnode1 clustnode2
settle
standby clustnode1 all
settle
power-off clustnode2
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
clustnode1: + 172.23.2.15
clustnode1: start ldap
owner: 172.23.2.14 clustnode1
owner: 172.23.2.15 clustnode1
client: 172.23.2.14 clustnode1
client: 172.23.2.15 clustnode1
> standby clustnode1 all
answer: done
clustnode1: stop httpd
clustnode1: - 172.23.2.14
clustnode1: stop ldap
clustnode1: - 172.23.2.15
clustnode2: + 172.23.2.14
clustnode2: start httpd
clustnode2: + 172.23.2.15
clustnode2: start ldap
owner: 172.23.2.14 clustnode2
owner: 172.23.2.15 clustnode2
client: 172.23.2.14 clustnode2
client: 172.23.2.15 clustnode2
> power-off clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
clustnode1: + 172.23.2.15
clustnode1: start ldap
owner: 172.23.2.14 clustnode1
owner: 172.23.2.15 clustnode1
client: 172.23.2.14 clustnode1
client: 172.23.2.15 clustnode1
