package nft

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// open makes one connection for all that is asked, where the library would make one for
// each question.
func open() (*nftables.Conn, error) { return nftables.New(nftables.AsLasting()) }

func closeConn(c *nftables.Conn) { _ = c.CloseLasting() } // nothing is buffered in it

// Install puts the fence into the current network namespace, in one batch: all of
// it or, with an error, nothing. With hold, the few TCP attempts that are logged get
// no answer from the fence: the reader of the log has to end them (sock_diag(7),
// SOCK_DESTROY), and has the time to find out whose they are.
func Install(hold bool) error {
	c, err := open()
	if err != nil {
		return fmt.Errorf("install the fence: %w", err)
	}
	defer closeConn(c)
	table, chains := wanted(hold)
	c.AddTable(table)
	for _, class := range classes {
		c.AddObject(&nftables.CounterObj{Table: table, Name: counterOf(class)})
	}
	for i := range chains {
		c.AddChain(&chains[i].Chain)
	}
	for i := range chains {
		for _, r := range chains[i].rules {
			c.AddRule(&nftables.Rule{Table: table, Chain: &chains[i].Chain, Exprs: r})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("install the fence (needs nf_tables with inet, limit, log, objref and reject in the kernel): %w", err)
	}
	return nil
}

// Verify reads the fence of the current network namespace back and fails on the
// first difference to what Install(hold) puts there, also when there is more.
func Verify(hold bool) error {
	c, err := open()
	if err != nil {
		return fmt.Errorf("verify the fence: %w", err)
	}
	defer closeConn(c)
	if err := verify(c, hold); err != nil {
		return fmt.Errorf("verify the fence: %w", err)
	}
	return nil
}

func verify(c *nftables.Conn, hold bool) error {
	tables, err := c.ListTables()
	if err != nil {
		return err
	}
	if len(tables) != 1 || tables[0].Name != tableName || tables[0].Family != nftables.TableFamilyINet || tables[0].Flags != 0 {
		return fmt.Errorf("there are other tables than inet %s, or it is dormant", tableName)
	}
	_, chains := wanted(hold)
	have, err := c.ListChains()
	if err != nil {
		return err
	}
	if len(have) != len(chains) {
		return fmt.Errorf("there are %d chains instead of %d", len(have), len(chains))
	}
	for i := range chains {
		if err := verifyChain(c, &chains[i], have); err != nil {
			return fmt.Errorf("chain %s: %w", chains[i].Name, err)
		}
	}
	return nil
}

func verifyChain(c *nftables.Conn, want *chain, all []*nftables.Chain) error {
	i := slices.IndexFunc(all, func(have *nftables.Chain) bool { return have.Name == want.Name })
	if i < 0 {
		return errors.New("it is missing")
	}
	have := all[i]
	if have.Type != want.Type || !same(have.Hooknum, want.Hooknum) || !same(have.Priority, want.Priority) || !same(have.Policy, want.Policy) {
		return errors.New("hook, priority or policy differ")
	}
	rules, err := c.GetRules(want.Table, have)
	if err != nil {
		return err
	}
	if len(rules) != len(want.rules) {
		return fmt.Errorf("there are %d rules instead of %d", len(rules), len(want.rules))
	}
	for i, r := range rules {
		if !sameRule(r.Exprs, want.rules[i]) {
			return fmt.Errorf("rule %d differs", i+1)
		}
	}
	return nil
}

func same[T comparable](a, b *T) bool { return a == b || a != nil && b != nil && *a == *b }

// sameRule compares by what goes over netlink.
func sameRule(have, want []expr.Any) bool {
	return slices.EqualFunc(have, want, func(h, w expr.Any) bool {
		a, err1 := expr.Marshal(byte(nftables.TableFamilyINet), h)
		b, err2 := expr.Marshal(byte(nftables.TableFamilyINet), w)
		return err1 == nil && err2 == nil && slices.Equal(a, b)
	})
}

// Counters reads how many packets were refused, by class.
func Counters() (map[string]uint64, error) {
	c, err := open()
	if err != nil {
		return nil, fmt.Errorf("read the fence's counters: %w", err)
	}
	defer closeConn(c)
	objects, err := c.GetObjects(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet})
	if err != nil {
		return nil, fmt.Errorf("read the fence's counters: %w", err)
	}
	found := make(map[string]uint64)
	for _, o := range objects {
		switch o := o.(type) {
		case *nftables.CounterObj:
			found[o.Name] = o.Packets
		case *nftables.NamedObj:
			if counter, ok := o.Obj.(*expr.Counter); ok {
				found[o.Name] = counter.Packets
			}
		}
	}
	out := make(map[string]uint64)
	for _, class := range classes {
		n, ok := found[counterOf(class)]
		if !ok {
			return nil, fmt.Errorf("read the fence's counters: %s is missing", counterOf(class))
		}
		out[class] = n
	}
	return out, nil
}
