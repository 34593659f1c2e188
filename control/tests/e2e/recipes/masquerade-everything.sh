# MASQUERADE without an interface: bob sees the hub's address
# expect: kernel
# says: may apply
$IPTABLES -A FORWARD -i $IF -j ACCEPT
$IPTABLES -t nat -A POSTROUTING -s $NET -j MASQUERADE
