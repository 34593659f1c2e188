# So many bytes, and then no more
# expect: kernel
# says: quota
$IPTABLES -A FORWARD -i $IF -m quota --quota 1000000000 -j ACCEPT
$IPTABLES -A FORWARD -i $IF -j DROP
