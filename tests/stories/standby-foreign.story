# Standby and takeover of the foreign set: what prefers the other node.
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
takeover clustnode1 foreign
settle
standby clustnode1 foreign
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
> takeover clustnode1 foreign
answer: done
clustnode1: + 172.23.2.15
clustnode1: start ldap
clustnode2: stop ldap
clustnode2: - 172.23.2.15
owner: 172.23.2.14 clustnode1
owner: 172.23.2.15 clustnode1
client: 172.23.2.14 clustnode1
client: 172.23.2.15 clustnode1
> standby clustnode1 foreign
answer: done
clustnode1: stop ldap
clustnode1: - 172.23.2.15
clustnode2: + 172.23.2.15
clustnode2: start ldap
owner: 172.23.2.14 clustnode1
owner: 172.23.2.15 clustnode2
client: 172.23.2.14 clustnode1
client: 172.23.2.15 clustnode2
