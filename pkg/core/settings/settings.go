// Package settings holds the conventions both daemons' configuration follows: one
// struct, a flag for each field over an environment variable, and no unknown
// variable with the daemon's prefix.
//
// It answers the threat of a safety setting that is misspelt and so silently
// ignored. It does not read the environment itself; only the config packages do.
//
// A field is a setting when it has an `env` tag; its `flag` tag names its flag.
// Supported field types are string, bool, int, uint32, uint16, time.Duration and
// []string (comma-separated).
package settings

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Environment calls parse, which is to set every field of the struct that cfg points to,
// with those entries of environ ("NAME=value") whose names start with prefix. It returns
// every problem, joined and by the variable's name; a variable with the prefix that is no
// setting is one.
func Environment(environ []string, prefix string, cfg any, parse func(given map[string]string) error) error {
	given := make(map[string]string)
	for _, entry := range environ {
		if name, value, _ := strings.Cut(entry, "="); strings.HasPrefix(name, prefix) {
			given[name] = value
		}
	}
	failed := parse(given)
	var errs []error
	v := reflect.ValueOf(cfg).Elem()
	for i := range v.NumField() {
		key := v.Type().Field(i).Tag.Get("env")
		if key == "" {
			continue
		}
		value := given[prefix+key]
		delete(given, prefix+key)
		if value == "" {
			continue
		}
		if err := set(reflect.New(v.Field(i).Type()).Elem(), value); err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s%s: invalid value %q: %w", prefix, key, value, err))
		}
	}
	if failed != nil && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("environment: %w", failed))
	}
	return errors.Join(append(errs, unknown(slices.Sorted(maps.Keys(given))))...)
}

// unknown says what to do about unknown variables; nil when there are none.
func unknown(names []string) error {
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("unknown environment variables: %s: remove or correct them "+
		"(variables such as …_SERVICE_HOST come from a Kubernetes Service; set enableServiceLinks: false in the pod)", strings.Join(names, ", "))
}

// Bind registers a flag for every field of the struct that cfg points to whose
// `flag` tag is not empty. help maps a flag's name to its text. The flag's value
// is stored in the field when the flag set is parsed.
func Bind(fs *flag.FlagSet, cfg any, help map[string]string) {
	v := reflect.ValueOf(cfg).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("flag")
		if name == "" {
			continue
		}
		field := v.Field(i)
		if field.Kind() == reflect.Bool {
			fs.BoolVar(field.Addr().Interface().(*bool), name, field.Bool(), help[name])
			continue
		}
		fs.Func(name, help[name], func(s string) error { return set(field, s) })
	}
}

// Parse reads a command's arguments. It prints the list of all flags where it is asked for
// (flag.ErrHelp) and not behind a mistake, which that would push out of sight.
func Parse(fs *flag.FlagSet, args []string) error {
	out := fs.Output()
	fs.SetOutput(io.Discard)
	err := fs.Parse(args)
	fs.SetOutput(out)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(out, "Usage of %s:\n", fs.Name())
		fs.PrintDefaults()
		return err
	case err != nil:
		return fmt.Errorf("%w (%s -h lists the flags)", err, fs.Name())
	}
	return nil
}

func set(field reflect.Value, s string) error {
	switch p := field.Addr().Interface().(type) {
	case *string:
		*p = s
	case *time.Duration:
		d, err := time.ParseDuration(s)
		if err != nil {
			return fmt.Errorf("needs a duration such as 30s: %w", err)
		}
		*p = d
	case *[]string:
		*p = strings.Split(s, ",")
	case *bool:
		on, err := strconv.ParseBool(s)
		if err != nil {
			return errors.New("needs true or false")
		}
		*p = on
	default:
		return setNumber(field, s)
	}
	return nil
}

func setNumber(field reflect.Value, s string) error {
	bits := field.Type().Bits()
	if field.CanUint() {
		n, err := strconv.ParseUint(s, 10, bits)
		if err != nil {
			return fmt.Errorf("needs a number from 0 to %d", uint64(1)<<bits-1)
		}
		field.SetUint(n)
		return nil
	}
	n, err := strconv.ParseInt(s, 10, bits)
	if err != nil {
		return fmt.Errorf("needs a whole number")
	}
	field.SetInt(n)
	return nil
}

// Line is one effective setting.
type Line struct {
	Name  string // the environment variable
	Value string
}

// Lines lists the effective settings of the struct that cfg points to, in the
// order of its fields. A field tagged `secret:"true"` shows only whether it is set.
func Lines(prefix string, cfg any) []Line {
	v := reflect.ValueOf(cfg).Elem()
	var out []Line
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		key := tag.Get("env")
		if key == "" {
			continue
		}
		value := fmt.Sprint(v.Field(i).Interface())
		if list, ok := v.Field(i).Interface().([]string); ok {
			value = strings.Join(list, ",")
		}
		if tag.Get("secret") == "true" && value != "" {
			value = "(set)"
		}
		out = append(out, Line{Name: prefix + key, Value: value})
	}
	return out
}
