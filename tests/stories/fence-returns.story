# The master was only cut off while the device failed. When it is heard again nobody is fenced any more, and the service
# never had two owners.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback on
    stonith_host * null clustnode1 clustnode2
    keys auth 1; 1 sha1 secret
    link eth1 crossover
    link eth0 lan
    group clustnode1 172.23.2.14 httpd
    device fails

start clustnode1 clustnode2
settle
cut all
wait 10s
heal all
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> cut all
> wait 10s
> heal all
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
---- notes
clustnode2 error: Host clustnode1 not reset!
clustnode2 critical: Cluster node clustnode1 returning after partition.
clustnode2 info: clustnode1 is back: fencing is cancelled
