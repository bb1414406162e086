"""Thirty pairs of English sentences, written for the demo, each graded 0 (nothing in common) to 5 (the same said again).

The one rule: the grades are the writer's own, given before any model saw the sentences.
"""

PAIRS: list[tuple[str, str, float]] = [
    ("A man is tuning an old guitar on the porch.", "On the porch, a man tunes an old guitar.", 5.0),
    ("The ferry was late because of the fog.", "Fog delayed the ferry.", 5.0),
    ("She forgot her keys and had to ring the bell.", "Having left her keys behind, she rang the doorbell.", 4.8),
    ("The museum is closed on Mondays.", "You cannot visit the museum on a Monday.", 4.8),
    ("Prices of bread rose sharply last winter.", "Last winter bread became much more expensive.", 4.8),
    ("The doctor told him to drink less coffee.", "His physician advised him to cut down on coffee.", 4.7),
    ("A child is feeding ducks in the park.", "A little girl throws bread to the ducks by the pond.", 4.0),
    ("The company hired forty engineers this spring.", "Forty new engineers joined the firm.", 4.2),
    ("The river flooded three villages overnight.", "Several villages were under water in the morning.", 3.9),
    ("He repaired the bicycle in his garage.", "He fixed a bike.", 4.0),
    ("Scientists found a new species of frog.", "Researchers described an unknown amphibian.", 4.1),
    ("The orchestra rehearsed until midnight.", "The musicians practised late into the night.", 4.2),
    ("A woman is slicing tomatoes.", "A woman is slicing onions.", 3.0),
    ("The train to Vienna leaves at nine.", "The bus to Vienna leaves at noon.", 2.8),
    ("Our team won the match in extra time.", "Our team lost the match in extra time.", 2.9),
    ("He is learning to play the violin.", "He is learning to play chess.", 2.0),
    ("The cat sleeps on the warm radiator.", "A dog lies in front of the fireplace.", 2.0),
    ("The court rejected the appeal.", "The judge postponed the hearing.", 2.4),
    ("She planted tulips along the fence.", "She painted the fence green.", 1.6),
    ("The recipe calls for two eggs and a cup of flour.", "Beat the butter with sugar until it is pale.", 2.1),
    ("The hikers reached the summit at dawn.", "The climbers slept in a tent below the glacier.", 2.2),
    ("Snow is forecast for the weekend.", "The summer was unusually dry.", 1.5),
    ("The printer is out of paper again.", "My laptop screen went black.", 1.4),
    ("They signed the contract yesterday.", "The lawyer bought a new umbrella.", 0.8),
    ("The bakery sells rye bread.", "The telescope points at a distant galaxy.", 0.0),
    ("He shaved off his beard.", "Interest rates are expected to fall.", 0.0),
    ("A violin costs more than a flute.", "The goalkeeper saved the penalty.", 0.1),
    ("The lake froze in January.", "Please send me the invoice by email.", 0.0),
    ("Children ran across the school yard.", "The algorithm sorts a list of numbers.", 0.1),
    ("Her grandmother grew up on a farm.", "The satellite entered a lower orbit.", 0.0),
]  # fmt: skip

SENTENCES = [sentence for first, second, _ in PAIRS for sentence in (first, second)]
GRADES = [grade for *_, grade in PAIRS]
