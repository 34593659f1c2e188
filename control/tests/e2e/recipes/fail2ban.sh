# fail2ban: input only
# expect: direct
$IPTABLES -N f2b-sshd
$IPTABLES -A INPUT -p tcp -m multiport --dports 22 -j f2b-sshd
$IPTABLES -A f2b-sshd -s $OUTSIDE -j REJECT
$IPTABLES -A f2b-sshd -j RETURN
