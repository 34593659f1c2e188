# A port of the hub for a server of a peer, with the target that assigns helpers: these expect
# connections of other ports
# expect: kernel
# says: helpers of connection tracking
$IPTABLES -t raw -A PREROUTING -d $HUB -p udp -m udp --dport 69 -j CT --helper tftp
$IPTABLES -t nat -A PREROUTING -d $HUB -p udp -m udp --dport 69 -j DNAT --to-destination $PEER
