# wg-easy's default hooks
# expect: direct
$IPTABLES -t nat -A POSTROUTING -s $NET -o eth0 -j MASQUERADE
$IPTABLES -A INPUT -p udp -m udp --dport 51820 -j ACCEPT
$IPTABLES -A FORWARD -i $IF -j ACCEPT
$IPTABLES -A FORWARD -o $IF -j ACCEPT
