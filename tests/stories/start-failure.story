# httpd does not start on the preferred node. What was started before it is stopped again, nothing is left half
# running, and after half a minute the other node gets the group.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback on
    keys auth 1; 1 crc
    link eth1 crossover
    group clustnode1 172.23.2.14 mysql httpd
    script httpd on clustnode1 start fails

start clustnode1 clustnode2
settle
wait 35s
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start mysql
clustnode1: start httpd failed
clustnode1: stop mysql
clustnode1: - 172.23.2.14
owner: 172.23.2.14 none
> wait 35s
clustnode2: + 172.23.2.14
clustnode2: start mysql
clustnode2: start httpd
owner: 172.23.2.14 clustnode2
client: 172.23.2.14 clustnode2
---- notes
clustnode1 critical: httpd
