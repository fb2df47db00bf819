# From crc to sha1, node by node under HUP: first both learn the new key, then one after the other signs with it, then
# the old one is forgotten. Nothing moves.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback on
    keys auth 1; 1 crc
    link eth1 crossover
    group clustnode1 172.23.2.14 httpd

start clustnode1 clustnode2
settle
keys clustnode1 auth 1; 1 crc; 2 sha1 secret
wait 3s
keys clustnode2 auth 1; 1 crc; 2 sha1 secret
wait 3s
keys clustnode1 auth 2; 1 crc; 2 sha1 secret
wait 3s
keys clustnode2 auth 2; 1 crc; 2 sha1 secret
wait 3s
keys clustnode1 auth 2; 2 sha1 secret
wait 3s
keys clustnode2 auth 2; 2 sha1 secret
settle
----
> start clustnode1 clustnode2
clustnode1: + 172.23.2.14
clustnode1: start httpd
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
> keys clustnode1 auth 1; 1 crc; 2 sha1 secret
> wait 3s
> keys clustnode2 auth 1; 1 crc; 2 sha1 secret
> wait 3s
> keys clustnode1 auth 2; 1 crc; 2 sha1 secret
> wait 3s
> keys clustnode2 auth 2; 1 crc; 2 sha1 secret
> wait 3s
> keys clustnode1 auth 2; 2 sha1 secret
> wait 3s
> keys clustnode2 auth 2; 2 sha1 secret
owner: 172.23.2.14 clustnode1
client: 172.23.2.14 clustnode1
---- notes
never warning
