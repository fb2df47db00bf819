# Both nodes serve: mysql and cyrus prefer one, ldap the other. One node is lost, and the other runs all three;
# it returns and gets its own back.
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
power-off clustnode1
settle
power-on clustnode1
settle
power-off clustnode2
settle
power-on clustnode2
settle
----
> start clustnode1 clustnode2
clustnode1: start mysql
clustnode1: start cyrus
clustnode2: start ldap
owner: mysql clustnode1
owner: cyrus clustnode1
owner: ldap clustnode2
> power-off clustnode1
clustnode2: start mysql
clustnode2: start cyrus
owner: mysql clustnode2
owner: cyrus clustnode2
owner: ldap clustnode2
> power-on clustnode1
clustnode1: start mysql
clustnode1: start cyrus
clustnode2: stop mysql
clustnode2: stop cyrus
owner: mysql clustnode1
owner: cyrus clustnode1
owner: ldap clustnode2
> power-off clustnode2
clustnode1: start ldap
owner: mysql clustnode1
owner: cyrus clustnode1
owner: ldap clustnode1
> power-on clustnode2
clustnode1: stop ldap
clustnode2: start ldap
owner: mysql clustnode1
owner: cyrus clustnode1
owner: ldap clustnode2
