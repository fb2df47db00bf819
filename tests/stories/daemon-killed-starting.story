# The master's daemon dies while its script is starting httpd, which takes long. The script goes on alone; the daemon
# that is started again ends it before it sweeps, so that nothing starts later behind its back.
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
    script httpd on clustnode1 start 8s

start clustnode1 clustnode2
wait 2s
kill clustnode1
wait 3s
start clustnode1
settle
----
> start clustnode1 clustnode2
> wait 2s
clustnode1: + 172.23.2.14
> kill clustnode1
> wait 3s
clustnode2: + 172.23.2.14
clustnode2: start httpd
> start clustnode1
clustnode1: start httpd killed
clustnode1: - 172.23.2.14
owner: 172.23.2.14 clustnode2
client: 172.23.2.14 clustnode2
