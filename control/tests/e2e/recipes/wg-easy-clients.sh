# A firewall for each client, as wg-easy's: what a client may reach, and nothing else
# expect: kernel
# says: may drop packets between peers
$IPTABLES -N WG_CLIENTS
$IPTABLES -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
$IPTABLES -A FORWARD -i $IF -j WG_CLIENTS
$IPTABLES -A WG_CLIENTS -s $ALICE -d $PEER -j ACCEPT
$IPTABLES -A WG_CLIENTS -s $PEER -d $ALICE -p tcp -m tcp --dport 1:100 -j ACCEPT
$IPTABLES -A WG_CLIENTS -s $PEER -j DROP
$IPTABLES -A WG_CLIENTS -s $ALICE -j DROP
