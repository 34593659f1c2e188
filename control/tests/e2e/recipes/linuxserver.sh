# linuxserver/wireguard's template
# expect: direct
$IPTABLES -A FORWARD -i $IF -j ACCEPT
$IPTABLES -A FORWARD -o $IF -j ACCEPT
$IPTABLES -t nat -A POSTROUTING -o eth+ -j MASQUERADE
