# Some packets between peers are tracked, and may be INVALID
# expect: kernel
# says: may drop packets between peers
$IPTABLES -t raw -A PREROUTING -i $IF -p udp -j CT --notrack
$IPTABLES -A FORWARD -m conntrack --ctstate INVALID -j DROP
