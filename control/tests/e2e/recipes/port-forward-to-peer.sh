# A port of the hub, for a server of a peer
# expect: direct, but tcp 80 by the kernel
# says: may translate to a peer's address
$IPTABLES -A FORWARD -i $IF -j ACCEPT
$IPTABLES -A FORWARD -i eth0 -d $PEER -p tcp -m tcp --dport 80 -j ACCEPT
$IPTABLES -t nat -A PREROUTING -d $HUB -p tcp -m tcp --dport 8080 -j DNAT --to $PEER_AS_HOST:80
