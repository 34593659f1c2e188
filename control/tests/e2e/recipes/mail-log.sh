# Some ports are logged
# expect: direct, but tcp 7 by the kernel
# says: may apply LOG
$IPTABLES -A FORWARD -i $IF -p tcp -m multiport --dports 7,25,465,587 -j LOG
$IPTABLES -A FORWARD -i $IF -j ACCEPT
