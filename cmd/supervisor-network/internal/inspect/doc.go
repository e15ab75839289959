// Package inspect turns what a request says into facts for a decision; its folders
// hold one parser each.
//
// It answers the threat of a rule and an origin that read one request differently:
// what cannot be read in exactly one way is an error, and an error is a denial. It
// never says whether a request may pass; that is decide's.
package inspect
