# All questions for names go to the resolver of a peer, as with Pi-hole
# expect: direct, but udp 53 by the kernel
# says: DNAT
$IPTABLES -t nat -A PREROUTING -i $IF -p udp -m udp --dport 53 -j DNAT --to-destination $PEER
$IPTABLES -t nat -A PREROUTING -i $IF -p tcp -m tcp --dport 53 -j DNAT --to-destination $PEER
