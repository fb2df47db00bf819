# A node starts alone. What the peer that was never heard holds nobody knows: it is reset first.
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

start clustnode1
settle
device works
wait 6s
settle
----
> start clustnode1
owner: 172.23.2.14 none
> device works
> wait 6s
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
---- notes
clustnode1 error: Host clustnode2 not reset!
clustnode1 info: node clustnode2 now reset.
