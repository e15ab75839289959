# The decision about one connection. Data is one compiled policy, input is the
# question; everything that is not derived here is denied.
#
#   data.policy.exact     "port host"   → endpoints that name the host
#   data.policy.patterns  "port suffix" → endpoints with a wildcard, by the labels
#                                         behind their last wildcard
#   data.policy.rules     rule          → the programs of the rule
#   input.destination     "port host"
#   input.suffixes        "port suffix", for every suffix of the host's labels
#   input.programs        the program that asks and its ancestors
#   input.any_program     true only where programs are not identified
package splitpod.connection

endpoint contains e if some e in data.policy.exact[input.destination]

endpoint contains e if {
	some suffix in input.suffixes
	some e in data.policy.patterns[suffix]
	splitpod.host_matches(e.host, input.host)
}

program_allowed(_) if input.any_program

program_allowed(rule) if {
	some program in input.programs
	data.policy.rules[rule].exact[program]
}

program_allowed(rule) if {
	some pattern in data.policy.rules[rule].patterns
	some program in input.programs
	splitpod.path_matches(pattern, program)
}

# An endpoint and a program of the same rule have to match.
granted contains e.id if {
	some e in endpoint
	program_allowed(e.rule)
}

# Rules that name the destination, but not this program: they explain a denial.
near contains e.rule if {
	some e in endpoint
	not program_allowed(e.rule)
}

decision := {"granted": granted, "near": near}
