equivalent = {}
faults = []
