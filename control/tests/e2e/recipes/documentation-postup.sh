# The Missing WireGuard Documentation, PostUp
# expect: direct
$IPTABLES -A FORWARD -i $IF -j ACCEPT
$IPTABLES -A FORWARD -o $IF -j ACCEPT
$IPTABLES -t nat -A POSTROUTING -o eth0 -j MASQUERADE
