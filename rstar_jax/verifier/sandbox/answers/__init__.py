"""What a mathematical answer says, and whether two of them say the same.

text -> dress off -> tokens -> a value (see `values`) -> comparison. Every token is accounted for: a text that is not
read to its end is `Unread`, and never replaced by something found in it.
"""
