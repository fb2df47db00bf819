# All links are cut between two nodes that both serve. After the heal each has what it had before.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback on
    keys auth 1; 1 crc
    link eth1 crossover
    link eth0 lan
    group clustnode1 mysql
    group clustnode1 cyrus
    group clustnode2 ldap

start clustnode1 clustnode2
settle
cut all
settle
heal all
settle
----
> start clustnode1 clustnode2
clustnode1: start mysql
clustnode1: start cyrus
clustnode2: start ldap
owner: mysql clustnode1
owner: cyrus clustnode1
owner: ldap clustnode2
> cut all
clustnode1: start ldap
clustnode2: start mysql
clustnode2: start cyrus
owner: mysql both
owner: cyrus both
owner: ldap both
> heal all
clustnode1: stop ldap
clustnode2: stop mysql
clustnode2: stop cyrus
owner: mysql clustnode1
owner: cyrus clustnode1
owner: ldap clustnode2
