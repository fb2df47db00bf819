# The device fails: however long the master is silent, nothing is taken over. When the master is back, it is asked
# instead, and serves again.
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
power-off clustnode1
wait 30s
settle
power-on clustnode1
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> power-off clustnode1
> wait 30s
owner: 172.23.2.14 none
> power-on clustnode1
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
---- notes
clustnode2 info: Resetting node clustnode1 with [null]
clustnode2 error: Host clustnode1 not reset!
clustnode2 warning: STONITH of clustnode1 failed.  Retrying...
clustnode2 warning: STONITH of clustnode1 failed.  Retrying...
clustnode2 info: clustnode1 is back: fencing is cancelled
never critical
